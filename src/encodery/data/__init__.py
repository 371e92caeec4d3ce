"""files -> Sample -> Batch: sources, tokenizers, samples, packing, loader. No weights here."""
