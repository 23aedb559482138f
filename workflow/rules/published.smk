"""The published SAEs themselves: fetched, judged by the same evaluations, compared with rebuilt
ones."""


localrules:
    repository,
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
        "published/{model}/{hookpoint}/{architecture}/{width}/{sparsity}/ae.pt",
        "published/{model}/{hookpoint}/{architecture}/{width}/{sparsity}/config.json",
        "published/{model}/{hookpoint}/{architecture}/{width}/{sparsity}/source.json",
    log:
        "logs/published/{model}/{hookpoint}/{architecture}/{width}/{sparsity}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        place=lambda wildcards: published_entry(wildcards).hub_folder,
    message:
        "fetch {params.place}"
    script:
        "../scripts/fetch.py"


rule against_catalogue:
    input:
        "results/{model}/{hookpoint}/{architecture}/{width}/{sparsity}/metrics.json",
    output:
        "published/{model}/{hookpoint}/{architecture}/{width}/{sparsity}/against_catalogue.json",
    log:
        "logs/compare/{model}/{hookpoint}/{architecture}/{width}/{sparsity}_catalogue.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        compared=lambda wildcards: repr(published_entry(wildcards)) + COMPARED_BY,
        recipes=rebuilt_recipe,
    message:
        "compare {wildcards.model}/{wildcards.hookpoint}/{wildcards.architecture}/{wildcards.width}/{wildcards.sparsity} with the catalogue"
    script:
        "../scripts/against_catalogue.py"


rule compare:
    input:
        **{
            place: [
                f"{place}/{{model}}/{{hookpoint}}/{{architecture}}/{{width}}/{{sparsity}}/{file}"
                for file in ["ae.pt", "config.json", "metrics.json"]
            ]
            for place in ["results", "published"]
        },
        source="published/{model}/{hookpoint}/{architecture}/{width}/{sparsity}/source.json",
        files=result_files,
    output:
        "published/{model}/{hookpoint}/{architecture}/{width}/{sparsity}/comparison.json",
    log:
        "logs/compare/{model}/{hookpoint}/{architecture}/{width}/{sparsity}.log",
    conda:
        "../../envs/saemake.yaml"
    threads: lambda wildcards: CONFIG.training_of(wildcards.model).cpu_threads
    params:
        compared=lambda wildcards: repr(published_entry(wildcards)) + COMPARED_BY,
        recipes=lambda wildcards: [rebuilt_recipe(wildcards), published_recipe(wildcards)],
    message:
        "compare {wildcards.model}/{wildcards.hookpoint}/{wildcards.architecture}/{wildcards.width}/{wildcards.sparsity} with the published one"
    script:
        "../scripts/compare.py"


rule comparisons:
    input:
        lambda wildcards: files_of_published(sweep_in(wildcards), ["comparison.json"]),
    output:
        "published/{model}/{hookpoint}/{architecture}/{width}/comparison.json",
    log:
        "logs/compare/{model}/{hookpoint}/{architecture}/{width}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipes=lambda wildcards: [*rebuilt_recipes(wildcards), published_recipe(wildcards)],
    message:
        "gather the comparisons of {wildcards.model}/{wildcards.hookpoint}/{wildcards.architecture}/{wildcards.width}"
    script:
        "../scripts/gather.py"


rule published_figure:
    input:
        published_figure_tables,
    output:
        pdf="published/{model}/{hookpoint}/figures/{published_figure}.pdf",
        svg=report(
            "published/{model}/{hookpoint}/figures/{published_figure}.svg",
            caption="../report/figure.rst",
            category="Beside published SAEs",
            labels={"figure": "{published_figure}"},
        ),
    log:
        "logs/figures/published/{model}/{hookpoint}/{published_figure}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipes=published_figure_recipes,
        caption=lambda wildcards, output: captions.caption(wildcards.published_figure),
    message:
        "draw {wildcards.published_figure} of {wildcards.model} {wildcards.hookpoint}"
    script:
        "../scripts/figure.py"
