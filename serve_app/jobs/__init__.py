"""Fine-tuning jobs: their folders, their Ray Jobs, and the actor that keeps the two in step."""
