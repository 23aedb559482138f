from snakemake.utils import min_version

min_version("9.27")


report: "workflow/report/workflow.rst"


configfile: f"{workflow.basedir}/config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/tokens.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/baselines.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/sae_bench.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/hub.smk"
include: "workflow/rules/published.smk"
include: "workflow/rules/publish.smk"
include: "workflow/rules/fetched.smk"


rule all:
    default_target: True
    input:
        inputs_of_all(CONFIG),
    message:
        f"finish {', '.join(CONFIG.build)}"
