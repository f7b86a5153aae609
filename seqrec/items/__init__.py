"""Items as a language model reads them: their vectors, prompts and caches. Imports basics, data, nn and text."""
