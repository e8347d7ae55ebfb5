"""What a student is made of: its recipe, vocabulary, model and losses, and the published folder. `training.train_student` trains one."""
