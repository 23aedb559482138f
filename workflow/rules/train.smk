"""Training: one job a sweep, in which one run of the LM feeds all SAEs that the store lacks."""

for model_name, architecture_name in SWEPT:

    rule:
        name:
            rule_name("train", model_name, architecture_name)
        input:
            model=f"results/{model_name}/model.json",
            tokens=f"results/{model_name}/tokens/train/manifest.json",
        output:
            sae_files(
                model_name,
                architecture_name,
                [
                    *SAE_FILES,
                    *names.checkpoint_files(CONFIG, model_name, architecture_name),
                ],
            ),
        log:
            f"logs/train/{model_name}/L{{layer}}/{architecture_name}/{{width}}.log",
        conda:
            "../../envs/saemake.yaml"
        threads: CONFIG.training_of(model_name).cpu_threads
        resources:
            gpu=1,
        params:
            # The one parameter that Snakemake compares; the rest takes `output` and is not.
            recipes=lambda wildcards, m=model_name, a=architecture_name: " ".join(
                recipes.sweep_hashes(CONFIG, sweep_of(wildcards, m, a))
            ),
            sweep=lambda wildcards, output, m=model_name, a=architecture_name: sweep_of(
                wildcards, m, a
            ),
            plan=lambda wildcards, output, m=model_name, a=architecture_name: plan.of_training(
                CONFIG, sweep_of(wildcards, m, a), output
            ),
        message:
            "{params.plan}"
        script:
            "../scripts/train.py"
