"""LoRA folders merged into one LoRA folder, without their base."""
