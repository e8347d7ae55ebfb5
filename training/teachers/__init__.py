"""What a teacher is made of: its recipe, model, examples, losses, training loop and folder. `training.train_teacher` trains one."""
