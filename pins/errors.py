"""One exception class per reaction. A caller catches the class and knows what to do; the message tells a person what to change.

| class | reaction |
|---|---|
| InvalidEvent | dead letter: the event can never be understood |
| Unembeddable | dead letter: the pin's text or point is refused; its previous vector stays served |
| FeaturesBehind | park, and retry later: the features the event speaks of have not arrived |
| FeaturesLost | stop without acknowledging: the feature store lost its data, and going on would delete the pins |
| Unavailable | retry with back-off, then stop without acknowledging |
| ArtifactError | refuse to start: the model folder or the index does not fit |
| PinNotFound | 404 for the asker |
"""


class EverpinError(Exception):
    """Base of everything Everpin raises on purpose."""


class InvalidEvent(EverpinError):
    """The message is not an event Everpin can act on. `reason` is a short code of `pins.events.REASONS` or `pins.actions.REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Unembeddable(EverpinError):
    """One pin's text cannot become a finite vector, or its point is refused. The fault is the pin's, not the store's."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class FeaturesBehind(EverpinError):
    """The feature store has not yet got the features an event announced."""

    reason = "features_behind"

    def __init__(self, pin_id: str, view: str, wanted_us: int, found_us: int) -> None:
        self.detail = f"pin {pin_id!r}: view {view!r} is at {found_us} us, the event announced {wanted_us} us"
        super().__init__(f"{self.reason}: {self.detail}")


class FeaturesLost(EverpinError):
    """Live pins in numbers have no row in any view, not even a deletion. Acting on that would take them out of the index."""

    def __init__(self, vanished: int, limit: int) -> None:
        super().__init__(
            f"{vanished} more pins than others had lost all their features (limit EVERPIN_VANISHED_LIMIT={limit}); did the feature store lose its data? "
            "Nothing of this batch was written or acknowledged: restore the features, or raise the limit if the pins are truly gone"
        )


class Unavailable(EverpinError):
    """A store, the broker or the encoder does not answer now. Nothing was acknowledged; trying again is right."""


class ArtifactError(EverpinError):
    """A model folder, or its fit to the index, is wrong. Starting would serve wrong vectors, so nothing starts."""


class PinNotFound(EverpinError):
    """No live pin with this id and a vector is in the index. `reason`: `unknown`, `deleted` or `no_text`."""

    def __init__(self, message: str, reason: str = "unknown") -> None:
        super().__init__(message)
        self.reason = reason
