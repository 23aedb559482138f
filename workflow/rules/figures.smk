"""Figures of a model's suite at one layer, and those that the config describes."""


localrules:
    figure,
    own_figure,
    report,


rule figure:
    input:
        figure_tables,
    output:
        pdf="results/{model}/L{layer}/figures/{figure}.pdf",
        svg=report(
            "results/{model}/L{layer}/figures/{figure}.svg",
            caption="../report/figure.rst",
            category="Figures",
            subcategory="{model} L{layer}",
            labels={"figure": "{figure}"},
        ),
    log:
        "logs/figures/{model}/L{layer}/{figure}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipes=figure_recipes,
        replaced=lambda wildcards, output, input: messages.of_replaced(CONFIG, output, input),
        caption=lambda wildcards, output: captions.caption(wildcards.figure),
    message:
        "draw {wildcards.figure} of {wildcards.model} L{wildcards.layer}{params.replaced}"
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
            for path in report_figures(CONFIG, wildcards.model, int(wildcards.layer))
            if path.endswith(".svg")
        ],
        tables=lambda wildcards: report_tables(CONFIG, wildcards.model, int(wildcards.layer)),
        # It leads to them.
        pages=lambda wildcards: suite_pages(CONFIG, wildcards.model, int(wildcards.layer)),
    output:
        report(
            "results/{model}/L{layer}/report.html",
            caption="../report/report.rst",
            category="Reports",
            labels={"model": "{model}", "layer": "{layer}"},
        ),
    log:
        "logs/figures/{model}/L{layer}/report.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipes=report_recipes,
    message:
        "write the report of {wildcards.model} L{wildcards.layer}"
    script:
        "../scripts/report.py"
