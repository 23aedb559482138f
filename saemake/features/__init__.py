"""A page for each SAE: which contexts its latents fire on, and what they do to the LM's prediction.

What a page shows follows SAEDashboard (github.com/jbloomAus/SAEDashboard) and Neuronpedia. Their
code asks for an LM of TransformerLens; ours captures activations with `saemake.llm`.
"""
