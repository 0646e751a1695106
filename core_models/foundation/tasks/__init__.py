"""The pretraining tasks, one small file each; `core_models.foundation.model.TASKS` registers them."""
