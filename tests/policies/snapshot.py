"""A policy saved and restored all the time, to show that its state survives it."""

import pickle


class Snapshot:
    """A policy that is pickled and restored before every decision."""

    def __init__(self, policy):
        self.__dict__["inner"] = policy

    def __getattr__(self, name):
        return getattr(self.__dict__["inner"], name)

    def start(self, limits):
        self.__dict__["inner"].start(limits)

    def plan(self, view):
        self.__dict__["inner"] = pickle.loads(pickle.dumps(self.__dict__["inner"]))
        return self.__dict__["inner"].plan(view)

    def __deepcopy__(self, memo):
        return Snapshot(pickle.loads(pickle.dumps(self.__dict__["inner"])))
