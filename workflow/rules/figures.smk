"""Figures of a model's suite at one layer, and those that the config describes."""


localrules:
    figure,
    own_figure,


rule figure:
    input:
        figure_tables,
    output:
        pdf="results/{model}/L{layer}/figures/{figure}.pdf",
        svg="results/{model}/L{layer}/figures/{figure}.svg",
    log:
        "logs/figures/{model}/L{layer}/{figure}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipes=figure_recipes,
        replaced=lambda wildcards, output, input: messages.of_replaced(CONFIG, output, input),
    message:
        "draw {wildcards.figure} of {wildcards.model} L{wildcards.layer}{params.replaced}"
    script:
        "../scripts/figure.py"


rule own_figure:
    input:
        lambda wildcards: shown.of_own(CONFIG, wildcards.own_figure).files(CONFIG),
    output:
        pdf="results/figures/{own_figure}.pdf",
        svg="results/figures/{own_figure}.svg",
    log:
        "logs/figures/own/{own_figure}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipes=own_figure_recipes,
    message:
        "draw {wildcards.own_figure}"
    script:
        "../scripts/own_figure.py"
