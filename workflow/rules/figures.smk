"""Figures of a model's suite at one hookpoint, and those that the config describes."""


localrules:
    figure,
    own_figure,
    report,


rule figure:
    input:
        figure_tables,
    output:
        pdf="results/{model}/{hookpoint}/figures/{figure}.pdf",
        svg=report(
            "results/{model}/{hookpoint}/figures/{figure}.svg",
            caption="../report/figure.rst",
            category="Figures",
            subcategory="{model} {hookpoint}",
            labels={"figure": "{figure}"},
        ),
    log:
        "logs/figures/{model}/{hookpoint}/{figure}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipes=figure_recipes,
        replaced=lambda wildcards, output, input: messages.of_replaced(CONFIG, output, input),
        caption=lambda wildcards, output: captions.caption(wildcards.figure),
    message:
        "draw {wildcards.figure} of {wildcards.model} {wildcards.hookpoint}{params.replaced}"
    script:
        "../scripts/figure.py"


rule own_figure:
    input:
        lambda wildcards: shown.of_own(CONFIG, wildcards.own_figure).files(CONFIG),
    output:
        pdf="results/figures/{own_figure}.pdf",
        svg=report(
            "results/figures/{own_figure}.svg",
            caption="../report/figure.rst",
            category="Figures",
            subcategory="of the config",
            labels={"figure": "{own_figure}"},
        ),
    log:
        "logs/figures/own/{own_figure}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipes=own_figure_recipes,
        caption=lambda wildcards, output: CONFIG.figures[wildcards.own_figure].title or "",
    message:
        "draw {wildcards.own_figure}"
    script:
        "../scripts/own_figure.py"


rule report:
    input:
        figures=lambda wildcards: [
            path
            for path in report_figures(CONFIG, wildcards.model, hookpoint_in(wildcards))
            if path.endswith(".svg")
        ],
        tables=lambda wildcards: report_tables(CONFIG, wildcards.model, hookpoint_in(wildcards)),
        # It leads to them.
        pages=lambda wildcards: suite_pages(CONFIG, wildcards.model, hookpoint_in(wildcards)),
    output:
        report(
            "results/{model}/{hookpoint}/report.html",
            caption="../report/report.rst",
            category="Reports",
            labels={"model": "{model}", "hookpoint": "{hookpoint}"},
        ),
    log:
        "logs/figures/{model}/{hookpoint}/report.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipes=report_recipes,
    message:
        "write the report of {wildcards.model} {wildcards.hookpoint}"
    script:
        "../scripts/report.py"
