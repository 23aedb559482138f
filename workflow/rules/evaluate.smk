"""Evaluation: one job a sweep and evaluation, in which one run of the LM judges all its SAEs; then
the tables."""

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
            tokens=f"results/{model_name}/tokens/{{evaluation}}/manifest.json",
        output:
            sae_files(
                model_name,
                architecture_name,
                ["{evaluation}.json", "{evaluation}_latents.parquet"],
            ),
        log:
            f"logs/evaluate/{model_name}/L{{layer}}/{architecture_name}/{{width}}_{{evaluation}}.log",
        conda:
            "../../envs/saemake.yaml"
        threads: CONFIG.training_of(model_name).cpu_threads
        resources:
            gpu=1,
        params:
            recipes=lambda wildcards, m=model_name, a=architecture_name: " ".join(
                recipes.evaluation_hashes(CONFIG, sweep_of(wildcards, m, a), wildcards.evaluation)
            ),
            sweep=lambda wildcards, output, m=model_name, a=architecture_name: sweep_of(
                wildcards, m, a
            ),
            plan=lambda wildcards, output, m=model_name, a=architecture_name: plan.of_evaluation(
                CONFIG, wildcards.evaluation, sweep_of(wildcards, m, a), output
            ),
        message:
            "{params.plan}"
        script:
            "../scripts/evaluate.py"

    rule:
        name:
            rule_name("join", model_name, architecture_name)
        input:
            evaluations=sae_files(model_name, architecture_name, EVALUATED),
        output:
            sae_files(model_name, architecture_name, ["metrics.json"]),
        log:
            f"logs/join/{model_name}/L{{layer}}/{architecture_name}/{{width}}.log",
        localrule: True
        conda:
            "../../envs/saemake.yaml"
        params:
            recipes=lambda wildcards, m=model_name, a=architecture_name: evaluated(
                sweep_of(wildcards, m, a)
            ),
        message:
            f"join the evaluations of {model_name}/L{{wildcards.layer}}/{architecture_name}/{{wildcards.width}}"
        script:
            "../scripts/join.py"

    if CONFIG.checkpoint_steps(model_name, architecture_name):

        rule:
            name:
                rule_name("evaluate_checkpoints", model_name, architecture_name)
            input:
                checkpoints=[
                    f"{sweep_folder(model_name, architecture_name)}/{{sparsity}}/{file}"
                    for file in names.checkpoint_files(CONFIG, model_name, architecture_name)
                ],
                config=f"{sweep_folder(model_name, architecture_name)}/{{sparsity}}/config.json",
                model=f"results/{model_name}/model.json",
                tokens=f"results/{model_name}/tokens/{{evaluation}}/manifest.json",
            output:
                f"{sweep_folder(model_name, architecture_name)}/{{sparsity}}/checkpoints/{{evaluation}}.json",
            log:
                f"logs/evaluate/{model_name}/L{{layer}}/{architecture_name}/{{width}}/{{sparsity}}_checkpoints_{{evaluation}}.log",
            wildcard_constraints:
                sparsity="|".join(map(re.escape, sparsity_names(model_name, architecture_name))),
            conda:
                "../../envs/saemake.yaml"
            threads: CONFIG.training_of(model_name).cpu_threads
            resources:
                gpu=1,
            params:
                recipes=lambda wildcards, m=model_name, a=architecture_name: " ".join(
                    recipes.checkpoint_evaluation_hashes(
                        CONFIG,
                        sae_of(wildcards, m, a),
                        wildcards.evaluation,
                    )
                ),
                sae=lambda wildcards, output, m=model_name, a=architecture_name: sae_of(
                    wildcards, m, a
                ),
                plan=lambda wildcards, output, m=model_name, a=architecture_name: plan.of_evaluation(
                    CONFIG, wildcards.evaluation, sae_of(wildcards, m, a), output
                ),
            message:
                "{params.plan}"
            script:
                "../scripts/evaluate_checkpoints.py"

        rule:
            name:
                rule_name("join_checkpoints", model_name, architecture_name)
            input:
                evaluations=[
                    f"{sweep_folder(model_name, architecture_name)}/{{sparsity}}/checkpoints/{file}"
                    for file in EVALUATED
                ],
            output:
                f"{sweep_folder(model_name, architecture_name)}/{{sparsity}}/checkpoints/metrics.json",
            log:
                f"logs/join/{model_name}/L{{layer}}/{architecture_name}/{{width}}/{{sparsity}}_checkpoints.log",
            wildcard_constraints:
                sparsity="|".join(map(re.escape, sparsity_names(model_name, architecture_name))),
            localrule: True
            conda:
                "../../envs/saemake.yaml"
            params:
                recipes=lambda wildcards, m=model_name, a=architecture_name: evaluated_checkpoints(
                    sae_of(wildcards, m, a)
                ),
            message:
                f"join the evaluations of the checkpoints of {model_name}/L{{wildcards.layer}}/{architecture_name}/{{wildcards.width}}/{{wildcards.sparsity}}"
            script:
                "../scripts/join.py"


localrules:
    metrics,


# One output: Snakemake sees that the set of its inputs has changed. Of a job with several outputs
# it would not, where one of them is new and nothing asks for it.
rule metrics:
    input:
        saes=lambda wildcards: [
            f"{member.folder}/metrics.json"
            for member in names.members(CONFIG, sweep_of(wildcards))
        ],
        baselines="results/{model}/L{layer}/baselines/metrics.json",
    output:
        "results/{model}/L{layer}/{architecture}/{width}/metrics.json",
    log:
        "logs/metrics/{model}/L{layer}/{architecture}/{width}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipes=lambda wildcards: [
            evaluated(sweep_of(wildcards)),
            evaluated_baselines(wildcards.model, int(wildcards.layer)),
        ],
    message:
        "gather the sweep {wildcards.model}/L{wildcards.layer}/{wildcards.architecture}/{wildcards.width}"
    script:
        "../scripts/metrics.py"
