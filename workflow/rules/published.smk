"""The published SAEs themselves: fetched, judged by the same evaluations, compared with rebuilt
ones."""


localrules:
    repository,
    join_published,
    against_catalogue,
    comparisons,
    published_figure,


rule repository:
    output:
        "published/repositories/{owner}/{repository}.json",
    log:
        "logs/published/{owner}/{repository}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        revision=lambda wildcards: CONFIG.published.revisions.get(
            f"{wildcards.owner}/{wildcards.repository}", "main"
        ),
    message:
        "write down the commit of {wildcards.owner}/{wildcards.repository} ({params.revision})"
    script:
        "../scripts/repository.py"


rule fetch:
    input:
        lambda wildcards: f"published/repositories/{published_entry(wildcards).repository}.json",
    output:
        "published/{model}/L{layer}/{architecture}/{width}/{sparsity}/ae.pt",
        "published/{model}/L{layer}/{architecture}/{width}/{sparsity}/config.json",
        "published/{model}/L{layer}/{architecture}/{width}/{sparsity}/source.json",
    log:
        "logs/published/{model}/L{layer}/{architecture}/{width}/{sparsity}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        place=lambda wildcards: published_entry(wildcards).hub_folder,
    message:
        "fetch {params.place}"
    script:
        "../scripts/fetch.py"


# One job a sweep, as for rebuilt ones: one run of the LM judges all.
for published_sweep in CATALOGUE.sweeps():

    rule:
        name:
            published_rule_name(published_sweep)
        input:
            saes=published_files(published_sweep, ["ae.pt", "config.json", "source.json"]),
            model=f"results/{published_sweep.model}/model.json",
            tokens=f"results/{published_sweep.model}/tokens/{{evaluation}}/manifest.json",
        output:
            published_files(published_sweep, ["{evaluation}.json", "{evaluation}_latents.parquet"]),
        log:
            f"logs/published/{published_sweep}/{{evaluation}}.log",
        conda:
            "../../envs/saemake.yaml"
        threads: CONFIG.training_of(published_sweep.model).cpu_threads
        resources:
            gpu=1,
        params:
            recipes=lambda wildcards, s=published_sweep: " ".join(
                published_hashes(s, wildcards.evaluation)
            ),
            sweep=lambda wildcards, output, s=published_sweep: s,
            plan=lambda wildcards, output, s=published_sweep: plan.of_published(
                CONFIG, wildcards.evaluation, s, CATALOGUE.of_sweep(s)
            ),
        message:
            "{params.plan}"
        script:
            "../scripts/evaluate_published.py"


rule join_published:
    input:
        evaluations=[
            f"published/{{model}}/L{{layer}}/{{architecture}}/{{width}}/{{sparsity}}/{file}"
            for file in EVALUATED
        ],
    output:
        "published/{model}/L{layer}/{architecture}/{width}/{sparsity}/metrics.json",
    log:
        "logs/join/published/{model}/L{layer}/{architecture}/{width}/{sparsity}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipes=lambda wildcards: evaluated_published(sweep_of(wildcards)),
    message:
        "join the evaluations of published {wildcards.model}/L{wildcards.layer}/{wildcards.architecture}/{wildcards.width}/{wildcards.sparsity}"
    script:
        "../scripts/join.py"


rule against_catalogue:
    input:
        "results/{model}/L{layer}/{architecture}/{width}/{sparsity}/metrics.json",
    output:
        "published/{model}/L{layer}/{architecture}/{width}/{sparsity}/against_catalogue.json",
    log:
        "logs/compare/{model}/L{layer}/{architecture}/{width}/{sparsity}_catalogue.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        compared=lambda wildcards: repr(published_entry(wildcards)) + COMPARED_BY,
        recipes=lambda wildcards: evaluated(sweep_of(wildcards)),
    message:
        "compare {wildcards.model}/L{wildcards.layer}/{wildcards.architecture}/{wildcards.width}/{wildcards.sparsity} with the catalogue"
    script:
        "../scripts/against_catalogue.py"


rule compare:
    input:
        **{
            place: [
                f"{place}/{{model}}/L{{layer}}/{{architecture}}/{{width}}/{{sparsity}}/{file}"
                for file in ["ae.pt", "config.json", "metrics.json"]
            ]
            for place in ["results", "published"]
        },
        source="published/{model}/L{layer}/{architecture}/{width}/{sparsity}/source.json",
    output:
        "published/{model}/L{layer}/{architecture}/{width}/{sparsity}/comparison.json",
    log:
        "logs/compare/{model}/L{layer}/{architecture}/{width}/{sparsity}.log",
    conda:
        "../../envs/saemake.yaml"
    threads: lambda wildcards: CONFIG.training_of(wildcards.model).cpu_threads
    params:
        compared=lambda wildcards: repr(published_entry(wildcards)) + COMPARED_BY,
        recipes=lambda wildcards: [
            evaluated(sweep_of(wildcards)),
            evaluated_published(sweep_of(wildcards)),
        ],
    message:
        "compare {wildcards.model}/L{wildcards.layer}/{wildcards.architecture}/{wildcards.width}/{wildcards.sparsity} with the published one"
    script:
        "../scripts/compare.py"


rule comparisons:
    input:
        lambda wildcards: published_files(sweep_of(wildcards), ["comparison.json"]),
    output:
        "published/{model}/L{layer}/{architecture}/{width}/comparison.json",
    log:
        "logs/compare/{model}/L{layer}/{architecture}/{width}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipes=lambda wildcards: [
            evaluated(sweep_of(wildcards)),
            evaluated_published(sweep_of(wildcards)),
        ],
    message:
        "gather the comparisons of {wildcards.model}/L{wildcards.layer}/{wildcards.architecture}/{wildcards.width}"
    script:
        "../scripts/gather.py"


rule published_figure:
    input:
        published_figure_tables,
    output:
        pdf="published/{model}/L{layer}/figures/{published_figure}.pdf",
        svg="published/{model}/L{layer}/figures/{published_figure}.svg",
    log:
        "logs/figures/published/{model}/L{layer}/{published_figure}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipes=published_figure_recipes,
    message:
        "draw {wildcards.published_figure} of {wildcards.model} L{wildcards.layer}"
    script:
        "../scripts/figure.py"
