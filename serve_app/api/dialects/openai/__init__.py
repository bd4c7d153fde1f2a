"""The OpenAI API: embeddings, models, files and fine-tuning jobs."""
