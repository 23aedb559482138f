"""What needs the network and no GPU: the model's files and the tokenised text."""


localrules:
    model,


rule model:
    output:
        "results/{model}/model.json",
    log:
        "logs/model/{model}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipe=lambda wildcards: fetched_by(CONFIG, wildcards.model)[:16],
        replaced=lambda wildcards, output: messages.of_replaced(CONFIG, output),
    message:
        "fetch and check the model {wildcards.model}{params.replaced}"
    script:
        "../scripts/model.py"


rule tokens:
    input:
        unpack(tokens_inputs),
    output:
        "results/{model}/tokens/{use}/manifest.json",
    log:
        "logs/tokens/{model}/{use}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        recipe=lambda wildcards: tokens_recipe(CONFIG, wildcards.model, wildcards.use).hash[:16],
        plan=lambda wildcards, output: messages.of_tokens(CONFIG, wildcards.model, wildcards.use),
        replaced=lambda wildcards, output: messages.of_replaced(CONFIG, output),
    message:
        "tokenise {params.plan}{params.replaced}"
    script:
        "../scripts/tokens.py"
