"""Rebuilt SAEs, laid out under hub/ as they were published; folders of them as targets."""

for folder_name in hub_folders_asked():

    rule:
        name:
            folder_name
        input:
            hub_folder_files(CONFIG, folder_name),
        message:
            f"finish {folder_name}"


localrules:
    lay_out,
    lay_out_checkpoint,


rule lay_out:
    input:
        unpack(lambda wildcards: rebuilt_files(f"hub/{wildcards.folder}")),
    output:
        weights="hub/{folder}/ae.pt",
        config="hub/{folder}/config.json",
        results="hub/{folder}/eval_results.json",
    log:
        "logs/hub/{folder}.log",
    conda:
        "../../envs/saemake.yaml"
    params:
        # What the catalogue says of the folder is nowhere else.
        name=lambda wildcards: str(rebuilt_name(f"hub/{wildcards.folder}")),
        recipes=lambda wildcards: sae_evaluation_recipe(
            CONFIG, rebuilt_name(f"hub/{wildcards.folder}"), LAID_OUT_BY
        ).hash[:16],
    message:
        "lay out {params.name} as published"
    script:
        "../scripts/lay_out.py"


rule lay_out_checkpoint:
    input:
        lambda wildcards: f"{rebuilt_name(f'hub/{wildcards.folder}').folder}/checkpoints/ae_{wildcards.step}.pt",
    output:
        "hub/{folder}/checkpoints/ae_{step}.pt",
    log:
        "logs/hub/{folder}/{step}.log",
    wildcard_constraints:
        step="[0-9]+",
    conda:
        "../../envs/saemake.yaml"
    params:
        name=lambda wildcards: str(rebuilt_name(f"hub/{wildcards.folder}")),
        recipes=lambda wildcards: sae_recipe(CONFIG, rebuilt_name(f"hub/{wildcards.folder}")).hash[
            :16
        ],
    message:
        "lay out step {wildcards.step} of {params.name} as published"
    script:
        "../scripts/lay_out_checkpoint.py"
