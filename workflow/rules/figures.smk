"""Figures of a model's suite at one layer."""


localrules:
    figure,


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
