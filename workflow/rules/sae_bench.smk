"""SAE Bench's own evaluations: their data, what is set up once, and judging. The jobs run SAE
Bench's code in an environment of its own, which has an LM on one GPU, whatever `lm_devices` says.
"""


localrules:
    dataset,


rule dataset:
    output:
        "datasets/{dataset}.json",
    log:
        "logs/datasets/{dataset}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipe=lambda wildcards: dataset_recipe(CONFIG, wildcards.dataset).hash[:16],
    message:
        "fetch and check the dataset {wildcards.dataset}"
    script:
        "../scripts/dataset.py"


rule set_up:
    input:
        unpack(setup_inputs),
    output:
        "results/{model}/L{layer}/setups/{evaluation}/seed_{seed}.json",
    log:
        "logs/setups/{model}/L{layer}/{evaluation}_seed_{seed}.log",
    wildcard_constraints:
        evaluation="|".join(CONFIG.sae_bench_evaluations),
        seed="0|[1-9][0-9]*",
    conda:
        "../../envs/saemake.yaml"
    threads: lambda wildcards: CONFIG.training_of(wildcards.model).cpu_threads
    resources:
        **ASKS.set_up(),
    params:
        recipe=lambda wildcards: setup_recipe(CONFIG, setup_in(wildcards)).hash[:16],
        setup=partial(without_comparing, setup_in),
    message:
        "set up {wildcards.evaluation} of {wildcards.model}/L{wildcards.layer} (seed {wildcards.seed})"
    script:
        "../scripts/set_up.py"


for judged in job_rules.evaluate_rules(CONFIG):

    rule:
        name:
            f"sae_bench__{judged.rule}"
        input:
            unpack(partial(judging_inputs, judged.subjects)),
            sae=judged.inputs,
        output:
            judged.by_sae_bench,
        log:
            f"logs/{judged.log}{{evaluation}}.log",
        wildcard_constraints:
            **judged.constraints,
            evaluation="|".join(CONFIG.sae_bench_evaluations),
        conda:
            "../../envs/saemake.yaml"
        threads: threads_of(judged.model)
        resources:
            **ASKS.evaluate(judged.subjects),
        params:
            recipes=partial(evaluation_recipes, judged.subjects),
            subjects=partial(without_comparing, judged.subjects),
            plan=partial(evaluation_plan, judged.subjects),
        message:
            "{params.plan}"
        script:
            "../scripts/judge.py"
