"""What SAEs are compared with, once a model and layer: the identity and principal components."""


localrules:
    join_baselines,


rule baselines:
    input:
        model="results/{model}/model.json",
        tokens="results/{model}/tokens/train/manifest.json",
    output:
        "results/{model}/L{layer}/baselines/pca.safetensors",
    log:
        "logs/baselines/{model}/L{layer}.log",
    conda:
        "../../envs/saemake.yaml"
    threads: lambda wildcards: CONFIG.training_of(wildcards.model).cpu_threads
    resources:
        gpu=1,
    params:
        recipe=lambda wildcards: recipes.baselines_recipe(
            CONFIG, wildcards.model, int(wildcards.layer)
        ).hash[:16],
        replaced=lambda wildcards, output: plan.of_replaced(CONFIG, output),
    message:
        "fit the principal components of {wildcards.model}/L{wildcards.layer}{params.replaced}"
    script:
        "../scripts/baselines.py"


rule evaluate_baselines:
    input:
        pca="results/{model}/L{layer}/baselines/pca.safetensors",
        model="results/{model}/model.json",
        tokens="results/{model}/tokens/{evaluation}/manifest.json",
    output:
        "results/{model}/L{layer}/baselines/{evaluation}.json",
    log:
        "logs/evaluate/{model}/L{layer}/baselines_{evaluation}.log",
    conda:
        "../../envs/saemake.yaml"
    threads: lambda wildcards: CONFIG.training_of(wildcards.model).cpu_threads
    resources:
        gpu=1,
    params:
        recipes=lambda wildcards: " ".join(
            recipes.baseline_evaluation_hashes(
                CONFIG, wildcards.model, int(wildcards.layer), wildcards.evaluation
            )
        ),
        plan=lambda wildcards, output: plan.of_evaluation(
            CONFIG,
            wildcards.evaluation,
            (wildcards.model, int(wildcards.layer)),
            output,
        ),
    message:
        "{params.plan}"
    script:
        "../scripts/evaluate_baselines.py"


rule join_baselines:
    input:
        evaluations=[f"results/{{model}}/L{{layer}}/baselines/{file}" for file in EVALUATED],
    output:
        "results/{model}/L{layer}/baselines/metrics.json",
    log:
        "logs/join/{model}/L{layer}/baselines.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipes=lambda wildcards: evaluated_baselines(wildcards.model, int(wildcards.layer)),
    message:
        "join the evaluations of the baselines of {wildcards.model}/L{wildcards.layer}"
    script:
        "../scripts/join.py"
