"""Text -> corpus snapshot -> tokenizer -> packed tokens -> batches. Stands on nothing else of ours."""
