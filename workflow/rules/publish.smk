"""SAEs in SAELens's format, and a model's suite on the Hub. What a push does is only ever asked for
by name: no other rule needs it."""


localrules:
    circuit_tracer,
    model_card,
    plan_push,
    push,


rule saelens:
    input:
        [
            f"results/{{model}}/{{hookpoint}}/{{architecture}}/{{width}}/{{sae}}/{file}"
            for file in ("ae.pt", "config.json", "provenance.json")
        ],
    output:
        weights="saelens/{model}/{hookpoint}/{architecture}/{width}/{sae}/sae_weights.safetensors",
        cfg="saelens/{model}/{hookpoint}/{architecture}/{width}/{sae}/cfg.json",
    log:
        "logs/saelens/{model}/{hookpoint}/{architecture}/{width}/{sae}.log",
    wildcard_constraints:
        sae=ONE_SAE,
    conda:
        "../../envs/saemake.yaml"
    params:
        version=SAELENS_VERSION,
        recipes=lambda wildcards: sae_recipe(CONFIG, sae_in(CONFIG, wildcards)).hash[:16],
        sae=lambda wildcards, output: sae_in(CONFIG, wildcards),
    message:
        "write {wildcards.model}/{wildcards.hookpoint}/{wildcards.architecture}/{wildcards.width}/{wildcards.sae} as SAELens reads it"
    script:
        "../scripts/saelens.py"


rule circuit_tracer_layer:
    input:
        [
            f"results/{{model}}/L{{layer}}.{{site}}/{{architecture}}/{{width}}/{{sae}}/{file}"
            for file in ("ae.pt", "config.json", "provenance.json")
        ],
    output:
        "circuit-tracer/{model}/{site}/{architecture}/{width}/{sae}/layer_{layer}.safetensors",
    log:
        "logs/circuit-tracer/{model}/{site}/{architecture}/{width}/{sae}/layer_{layer}.log",
    wildcard_constraints:
        sae=ONE_SAE,
    conda:
        "../../envs/saemake.yaml"
    params:
        version=TRACER_VERSION,
        recipes=lambda wildcards: sae_recipe(CONFIG, traced_in(CONFIG, wildcards)).hash[:16],
        sae=lambda wildcards, output: traced_in(CONFIG, wildcards),
    message:
        "write layer {wildcards.layer} of {wildcards.model}/{wildcards.site}/{wildcards.architecture}/{wildcards.width}/{wildcards.sae} as circuit-tracer reads it"
    script:
        "../scripts/circuit_tracer_layer.py"


rule circuit_tracer:
    input:
        traced_layers,
    output:
        "circuit-tracer/{model}/{site}/{architecture}/{width}/{sae}/config.yaml",
    log:
        "logs/circuit-tracer/{model}/{site}/{architecture}/{width}/{sae}/config.log",
    wildcard_constraints:
        sae=ONE_SAE,
    conda:
        "../../envs/saemake.yaml"
    params:
        version=TRACER_VERSION,
        sae=lambda wildcards, output: traced_in(CONFIG, wildcards),
    message:
        "describe the transcoders {wildcards.model}/{wildcards.site}/{wildcards.architecture}/{wildcards.width}/{wildcards.sae} of all layers to circuit-tracer"
    script:
        "../scripts/circuit_tracer.py"


rule model_card:
    input:
        lambda wildcards: suite_files(CONFIG, wildcards.model),
    output:
        card="published-to/{owner}/{repo}/{model}/README.md",
        config="published-to/{owner}/{repo}/{model}/saemake.yaml",
    log:
        "logs/publish/{owner}/{repo}/{model}/card.log",
    wildcard_constraints:
        owner="[^/]+",
        repo="[^/]+",
    conda:
        "../../envs/saemake.yaml"
    params:
        config=lambda wildcards: digest(
            [rebuilding.config_yaml(CONFIG, wildcards.model), CONFIG.publishing.license]
        )[:16],
    message:
        "write the model card of {wildcards.model} for {wildcards.owner}/{wildcards.repo}"
    script:
        "../scripts/model_card.py"


rule plan_push:
    input:
        suite=lambda wildcards: suite_files(CONFIG, wildcards.model),
        card="published-to/{owner}/{repo}/{model}/README.md",
        config="published-to/{owner}/{repo}/{model}/saemake.yaml",
    output:
        "published-to/{owner}/{repo}/{model}/plan.txt",
    log:
        "logs/publish/{owner}/{repo}/{model}/plan.log",
    wildcard_constraints:
        owner="[^/]+",
        repo="[^/]+",
    conda:
        "../../envs/saemake.yaml"
    params:
        # Never the same: what the Hub has, only the Hub knows, so it is asked each time.
        asked_at=lambda wildcards: time.time_ns(),
    message:
        "compare {wildcards.model} with {wildcards.owner}/{wildcards.repo} on the Hub, sending nothing"
    script:
        "../scripts/plan_push.py"


rule push:
    input:
        rules.plan_push.output,
    output:
        "published-to/{owner}/{repo}/{model}/receipt.json",
    log:
        "logs/publish/{owner}/{repo}/{model}/push.log",
    wildcard_constraints:
        owner="[^/]+",
        repo="[^/]+",
    conda:
        "../../envs/saemake.yaml"
    message:
        "push {wildcards.model} to {wildcards.owner}/{wildcards.repo} on the Hub"
    script:
        "../scripts/push.py"
