"""Who decides in streaming sessions: how the frames and the texts of many sessions share steps."""
