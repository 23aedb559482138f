"""All that needs the network, by one name: what a model's suite is made from, and its published
SAEs. After it the other jobs need none."""


localrules:
    fetched,
    fetched_published,


rule fetched:
    input:
        lambda wildcards: fetched_files(CONFIG, wildcards.model),
    output:
        "fetched/{model}.ok",
    log:
        "logs/fetched/{model}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        # Snakemake does not look into the Hub's cache.
        gone=lambda wildcards: cached.gone(CONFIG, fetched_files(CONFIG, wildcards.model)),
    message:
        "check that all is here which {wildcards.model} needs of the network"
    script:
        "../scripts/fetched.py"


rule fetched_published:
    input:
        lambda wildcards: fetched_published_files(CONFIG, wildcards.model),
    output:
        "fetched/{model}/published.ok",
    log:
        "logs/fetched/{model}_published.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        gone=lambda wildcards: cached.gone(CONFIG, fetched_published_files(CONFIG, wildcards.model)),
    message:
        "check that the published SAEs of {wildcards.model} are here"
    script:
        "../scripts/fetched_published.py"
