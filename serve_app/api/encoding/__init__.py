"""Response bodies with many numbers: JSON, binary, and quantized vectors."""
