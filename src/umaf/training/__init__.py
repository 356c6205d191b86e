"""Training of the stages: one loop that can be stopped and gone on with, and what each stage is trained on."""
