"""The pages of SAEs: one run of the LM for all of a sweep, and then the pages, without the LM."""

for paged in job_rules.train_rules(CONFIG):

    rule:
        name:
            paged.rule_name("features")
        input:
            paged.files(["ae.pt", "config.json", "provenance.json"]),
            model=f"results/{paged.model}/model.json",
            tokens=f"results/{paged.model}/tokens/{FEATURES_TEXT}/manifest.json",
            train=f"results/{paged.model}/tokens/train/manifest.json",
        output:
            paged.files([FEATURES]),
        log:
            f"logs/features/{paged.place}.log",
        wildcard_constraints:
            **paged.constraints,
        conda:
            "../../envs/saemake.yaml"
        threads: threads_of(paged.model)
        resources:
            **ASKS.look(paged.trained, gpus_of(paged.model, lm_devices)),
        params:
            recipes=partial(page_recipes, paged.trained),
            trained=partial(without_comparing, paged.trained),
            plan=partial(page_plan, paged.trained),
        message:
            "{params.plan}"
        script:
            "../scripts/features.py"

    # All pages of a sweep together, since they link to each other.
    rule:
        name:
            paged.rule_name("pages")
        input:
            paged.files([FEATURES]),
        output:
            paged.files([FEATURES_PAGE]),
        log:
            f"logs/pages/{paged.place}.log",
        wildcard_constraints:
            **paged.constraints,
        localrule: True
        conda:
            "../../envs/saemake.yaml"
        params:
            recipes=partial(page_recipes, paged.trained),
            trained=partial(without_comparing, paged.trained),
        message:
            f"write the pages of {paged.place.replace('{', '{wildcards.')}"
        script:
            "../scripts/pages.py"
