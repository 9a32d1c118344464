"""From the fields of a file to the entries of a record: identity, modalities, labels."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.fits import short
from data_pipelines.names import nearest


def look_up(raw: Mapping[str, Any], field: str) -> Any:
    """A field by its name, or by its way through mappings (`"json.caption"`), or the first of
    several that is there (`"jpg;png"`); None where there is none.
    """
    if field in raw:
        return raw[field]
    for one in field.split(";"):
        head = head_of(one, raw)
        if head is None:
            continue
        value = raw[head]
        for step in one[len(head) + 1 :].split(".") if one != head else ():
            value = value.get(step) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def head_of(field: str, there: Iterable[str]) -> str | None:
    """The longest of the names there that a field begins with: `json` of `json.caption`."""
    steps = field.split(".")
    there = set(there)
    heads = (".".join(steps[:n]) for n in range(len(steps), 0, -1))
    return next((head for head in heads if head in there), None)


@dataclasses.dataclass(frozen=True)
class Fields:
    """Which entries a record has, and which fields of a file they are.

    Attributes:
        fields: entry -> field, see `look_up`; None: every field under its own name.
        id: the field that is the stable identity; None: what the source says.
        label_names: label -> names. A label that is a name in the file becomes its number.

    Raises:
        InputError: an entry is called `id`.
    """

    fields: Mapping[str, str] | None
    id: str | None
    label_names: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.fields is not None and "id" in self.fields:
            raise InputError(f"fields.id: say it as id='{self.fields['id']}'.")

    def record(self, raw: Mapping[str, Any], id: str) -> dict[str, Any]:
        """The record of what a file says; `id` is its identity if no field is.

        Raises:
            Fault: `missing_field` where the identity is null, `bad_label` for an unknown name.
        """
        if self.id is not None:
            found = look_up(raw, self.id)
            if found is None:
                raise Fault("missing_field", f"'{self.id}', which is the id, is missing in {id}")
            id = str(found)
        record = {"id": id}
        for name, field in self._entries(raw):
            value = look_up(raw, field)
            record[name] = self._label(name, value, id) if name in self.label_names else value
        return record

    def only(self, *entries: str) -> "Fields":
        """Those of these entries that there may be, beside the identity."""
        known = {name: name for name in entries} if self.fields is None else self.fields
        fields = {name: known[name] for name in entries if name in known and name != "id"}
        return dataclasses.replace(self, fields=fields)

    def heads(self, there: Iterable[str]) -> list[str]:
        """The fields of a file that have to be read, in the file's order.

        Raises:
            InputError: an entry has no field in it.
        """
        there = list(there)
        if self.fields is None:
            return there
        wanted = {f"fields.{name}": field for name, field in self.fields.items()}
        if self.id is not None:
            wanted["id"] = self.id
        heads: set[str] = set()
        for key, field in wanted.items():
            found = {field} if field in there else {head_of(o, there) for o in field.split(";")}
            if found <= {None}:
                raise InputError(f"{key}: there is no '{field}'.{nearest(field, there)}")
            heads.update(head for head in found if head is not None)
        return [field for field in there if field in heads]

    def _entries(self, raw: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if self.fields is not None:
            return self.fields.items()
        return [(field, field) for field in raw if field != "id"]

    def _label(self, name: str, value: Any, id: str) -> Any:
        if not isinstance(value, str):
            return value
        names = self.label_names[name]
        if value not in names:
            known = f"one of {short(list(names))}"
            raise Fault("bad_label", f"'{name}' is '{value}' in {id}, which is not {known}")
        return names.index(value)
