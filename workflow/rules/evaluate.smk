"""Evaluation: one job judges all that is judged together in one run of the LM; then the tables."""

for judged in job_rules.evaluate_rules(CONFIG):

    rule:
        name:
            judged.rule
        input:
            judged.inputs,
            model=f"results/{judged.model}/model.json",
            tokens=f"results/{judged.model}/tokens/{{evaluation}}/manifest.json",
        output:
            judged.outputs,
        log:
            f"logs/{judged.log}{{evaluation}}.log",
        wildcard_constraints:
            **judged.constraints,
        conda:
            "../../envs/saemake.yaml"
        threads: threads_of(judged.model)
        resources:
            **judged_of(judged.subjects),
            **ASKS.evaluate(judged.subjects, gpus_of(judged.model, lm_devices)),
        params:
            recipes=partial(evaluation_recipes, judged.subjects),
            subjects=partial(without_comparing, judged.subjects),
            plan=partial(evaluation_plan, judged.subjects),
        message:
            "{params.plan}"
        script:
            "../scripts/evaluate.py"


for joined in job_rules.join_rules(CONFIG):

    rule:
        name:
            joined.rule
        input:
            evaluations=partial(evaluation_tables, joined),
        output:
            joined.tables([METRICS]),
        log:
            f"logs/join/{joined.log}.log",
        wildcard_constraints:
            **joined.constraints,
        localrule: True
        conda:
            "../../envs/saemake.yaml"
        params:
            recipes=partial(evaluated_by_wildcards, joined.subjects),
        message:
            f"join the evaluations of {joined.called}"
        script:
            "../scripts/join.py"


localrules:
    metrics,


# One output: Snakemake sees that the set of its inputs has changed. Of a job with several outputs
# it would not, where one of them is new and nothing asks for it.
rule metrics:
    input:
        saes=lambda wildcards: [
            f"{member.folder}/{METRICS}" for member in members(CONFIG, sweep_in(wildcards))
        ],
        baselines=lambda wildcards: f"{baselines_of(sweep_in(wildcards)).folder}/{METRICS}",
    output:
        "results/{model}/{hookpoint}/{architecture}/{width}/metrics.json",
    log:
        "logs/metrics/{model}/{hookpoint}/{architecture}/{width}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipes=lambda wildcards: [
            evaluated(sweep_in(wildcards)),
            evaluated(baselines_of(sweep_in(wildcards))),
        ],
    message:
        "gather the sweep {wildcards.model}/{wildcards.hookpoint}/{wildcards.architecture}/{wildcards.width}"
    script:
        "../scripts/metrics.py"
