"""An OpenAI-compatible HTTP front for the engine. Needs the extra ``engine``.

`rota.mechanisms.server.thread` runs the engine in a thread of its own; `app` translates HTTP into requests to it and its outputs into
answers; `run` starts and stops it all. Nothing here schedules or computes.
"""
