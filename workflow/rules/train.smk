"""Training: one job a sweep, in which one run of the LM feeds all SAEs that the store lacks; and one
an SAE that no sweep lists."""

for pass_ in job_rules.train_rules(CONFIG):

    rule:
        name:
            pass_.rule_name("train")
        input:
            model=f"results/{pass_.model}/model.json",
            tokens=f"results/{pass_.model}/tokens/train/manifest.json",
            starts=partial(started_from, pass_.trained),
        output:
            pass_.files([*SAE_FILES, *pass_.checkpoints]),
        log:
            f"logs/train/{pass_.place}.log",
        wildcard_constraints:
            **pass_.constraints,
        # Before what judges: it is judged together as far as it is trained.
        priority: 1 if SHARED.judged else 0
        conda:
            "../../envs/saemake.yaml"
        threads: CONFIG.training_of(pass_.model).cpu_threads
        resources:
            **passes_of(pass_.trained),
            **ASKS.train(pass_.trained, gpus_of(pass_.model, CONFIG.gpus_to_train)),
        params:
            # The one parameter that Snakemake compares; the rest takes `output` and is not.
            recipes=partial(training_recipes, pass_.trained),
            trained=partial(without_comparing, pass_.trained),
            plan=partial(training_plan, pass_.trained),
        message:
            "{params.plan}"
        script:
            "../scripts/train.py"
