"""Evaluation: one job a sweep, then the sweep's table."""

for model_name, architecture_name in SWEPT:

    rule:
        name:
            rule_name("evaluate", model_name, architecture_name)
        input:
            saes=sae_files(
                model_name,
                architecture_name,
                ["ae.pt", "config.json", "provenance.json"],
            ),
            model=f"results/{model_name}/model.json",
            tokens=f"results/{model_name}/tokens/evaluation/manifest.json",
        output:
            sae_files(model_name, architecture_name, ["metrics.json"]),
        log:
            f"logs/evaluate/{model_name}/L{{layer}}/{architecture_name}/{{width}}.log",
        conda:
            "../../envs/saemake.yaml"
        threads: CONFIG.training_of(model_name).cpu_threads
        resources:
            gpu=1,
        params:
            recipes=lambda wildcards, m=model_name, a=architecture_name: " ".join(
                recipes.evaluation_hashes(CONFIG, sweep_of(wildcards, m, a))
            ),
            sweep=lambda wildcards, output, m=model_name, a=architecture_name: sweep_of(
                wildcards, m, a
            ),
            plan=lambda wildcards, output, m=model_name, a=architecture_name: plan.of_evaluation(
                CONFIG, sweep_of(wildcards, m, a)
            ),
        message:
            "evaluate {params.plan}"
        script:
            "../scripts/evaluate.py"


localrules:
    metrics,


rule metrics:
    input:
        lambda wildcards: [
            f"{member.folder}/metrics.json"
            for member in names.members(CONFIG, sweep_of(wildcards))
        ],
    output:
        "results/{model}/L{layer}/{architecture}/{width}/metrics.json",
    log:
        "logs/metrics/{model}/L{layer}/{architecture}/{width}.log",
    conda:
        "../../envs/saemake.yaml"
    message:
        "gather the sweep {wildcards.model}/L{wildcards.layer}/{wildcards.architecture}/{wildcards.width}"
    script:
        "../scripts/metrics.py"
