"""Class names: from the labels of a source to the classes of a dataset."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from fer_exp.errors import UserError, join_first
from fer_exp.files import printable

FER_CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
_SYNONYMS = {
    "angry": ("anger",),
    "disgust": ("disgusted",),
    "fear": ("fearful", "afraid", "scared"),
    "happy": ("happiness", "joy"),
    "neutral": ("neutrality", "calm"),
    "sad": ("sadness",),
    "surprise": ("surprised", "surprising"),
}
_FER_CLASS = {name: fer_class for fer_class, names in _SYNONYMS.items() for name in (fer_class, *names)}
MAX_CLASSES = 100
_MAX_NAMED = 12


class ClassMap:
    """Maps label names to classes.

    Args:
        classes: names and order of the classes; None takes the classes from the labels, in alphabetical order.
        class_names: label name -> class name, e.g. ``{"1": "surprise"}``.
        merge: class name -> class that takes its images, e.g. ``{"contempt": "disgust"}``.
    """

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        class_names: Mapping[str, str] | None = None,
        merge: Mapping[str, str] | None = None,
    ) -> None:
        self.given = None if classes is None else tuple(map(str, classes))
        self.class_names = {str(label): str(name) for label, name in (class_names or {}).items()}
        self.merge = {str(name): str(into) for name, into in (merge or {}).items()}

    def resolve(self, labels: Iterable[str]) -> tuple[str, ...]:
        """Return the classes of a dataset whose training and validation images have these label names.

        Raises:
            UserError: fewer than 2 or more than ``MAX_CLASSES`` classes, a class given twice, or a label in
                ``class_names`` or ``merge`` that the data does not have, or a name that is not printable text.
        """
        labels = {*labels}
        self._check_keys("class_names", self.class_names, labels)
        self._check_keys("merge", self.merge, {self.class_names.get(label, label) for label in labels})
        found = {self._name(label) for label in labels}
        if self.given is not None:
            classes = self.given
        elif {fer_class(name) for name in found} == {*FER_CLASSES}:
            classes = FER_CLASSES
        else:
            classes = tuple(sorted(found, key=int if all(name.isdecimal() for name in found) else None))
        if not 2 <= len(classes) <= MAX_CLASSES or len({*classes}) < len(classes):
            raise UserError(
                f"data.classes: expected 2 to {MAX_CLASSES} different classes; there are {len(classes)}: "
                f"{join_first([printable(name) for name in classes], _MAX_NAMED)}"
            )
        if unprintable := [shown for name in classes if (shown := printable(name)) != name]:
            raise UserError(
                f"data.classes: {join_first(unprintable, _MAX_NAMED)}: the name is not UTF-8 text, or has special "
                "characters. Rename the folder or the label."
            )
        return classes

    def index(self, label: str, classes: Sequence[str]) -> int | None:
        """Return the index into ``classes`` for a label name; None if it belongs to no class.

        A label matches a class by name, else as a synonym in any case ("Happiness" matches "happy").
        """
        name = self._name(label)
        if name in classes:
            return classes.index(name)
        known = fer_class(name)
        return classes.index(known) if known in classes else None

    @staticmethod
    def _check_keys(key: str, names: Iterable[str], present: Collection[str]) -> None:
        if absent := [name for name in names if name not in present]:
            raise UserError(
                f"data.{key}: the data has no {join_first([repr(printable(name)) for name in absent], _MAX_NAMED)}; it "
                f"has {join_first([repr(printable(name)) for name in sorted(present)], _MAX_NAMED)}"
            )

    def _name(self, label: str) -> str:
        name = self.class_names.get(label, label)
        return self.merge.get(name, name)


def fer_class(name: str) -> str | None:
    """The FER2013 class that ``name`` is a synonym of, in any case; None if there is none."""
    return _FER_CLASS.get(name.lower())
