"""What SAEs are compared with, once a model and layer: the identity and principal components."""


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
        **ASKS.fit(gpus_of("{model}", lm_devices)),
    params:
        recipe=lambda wildcards: baselines_recipe(
            CONFIG, wildcards.model, int(wildcards.layer)
        ).hash[:16],
        replaced=lambda wildcards, output: messages.of_replaced(CONFIG, output),
    message:
        "fit the principal components of {wildcards.model}/L{wildcards.layer}{params.replaced}"
    script:
        "../scripts/baselines.py"
