"""What SAEs are compared with, once a model and site: the identity and principal components."""


rule baselines:
    input:
        model="results/{model}/model.json",
        tokens="results/{model}/tokens/train/manifest.json",
    output:
        "results/{model}/{hookpoint}/baselines/pca.safetensors",
    log:
        "logs/baselines/{model}/{hookpoint}.log",
    conda:
        "../../envs/saemake.yaml"
    threads: lambda wildcards: CONFIG.training_of(wildcards.model).cpu_threads
    resources:
        **ASKS.fit(gpus_of("{model}", lm_devices)),
    params:
        recipe=lambda wildcards: baselines_recipe(
            CONFIG, wildcards.model, hookpoint_in(wildcards)
        ).hash[:16],
        replaced=lambda wildcards, output: messages.of_replaced(CONFIG, output),
    message:
        "fit the principal components of {wildcards.model}/{wildcards.hookpoint}{params.replaced}"
    script:
        "../scripts/baselines.py"
