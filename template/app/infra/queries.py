# Rung's file: advancing to another stage may change it.
"""Query: a statement that is declared once, with its optional parts and the model of its rows."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from types import NoneType, UnionType
from typing import Any, ClassVar, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter
from sqlalchemy import (
    ARRAY,
    BinaryExpression,
    BindParameter,
    ColumnElement,
    Insert,
    Label,
    Select,
    SQLColumnExpression,
    Tuple,
    UpdateBase,
    all_,
    any_,
    bindparam,
    func,
    select,
)
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.sql import operators, visitors

# SQLAlchemy asks for the OID of a column's type, and uses it only for numbers.
OID_OF_NUMERIC = 1700

_DIALECT = dialect(dbapi=dialect.import_dbapi())  # type: ignore[no-untyped-call]  # SQLAlchemy's own

NOT_FIXED = (
    "this SQL would differ with its values: compare tuples with a SELECT from unnest()"
    " (docs/guide/queries.md), write a constant as literal_column(…), and select from the class"
    " that has the table, not from a subclass"
)

# A column of a table, an attribute of a model, or an expression of these.
type Order = SQLColumnExpression[Any] | Sequence[SQLColumnExpression[Any]]

# UpdateBase: an INSERT, UPDATE or DELETE.
type Statement = Select[*tuple[Any, ...]] | UpdateBase


def nested(name: str, *columns: Any) -> list[Label[Any]]:
    """Columns of a joined table that become one field of the row: a nested model.

    If all of them are NULL, as after an outer join without a match, the field is None.
    """
    return [column.label(f"{name}.{getattr(column, 'name', column.key)}") for column in columns]


class Query[RowT = dict[str, Any]]:
    """One SELECT with named parameters, and the model that each of its rows becomes.

    Make it once, at module level: each form is compiled at its first use. After that it runs
    directly on the driver, which serves about twice the requests of SQLAlchemy's connection. Every
    column is a field of the model. `in_transaction(write)` also runs an INSERT, UPDATE or DELETE.

        PRODUCTS = Query(
            select(Product.id, Product.name).limit(bindparam("limit")),
            ProductOut,
            optional=[Product.maker_id == bindparam("maker_id")],
            orders={"newest": Product.id.desc(), "name": Product.name},
        )

    An optional condition counts when its parameters are given and not None. `order` chooses one of
    the orders by name; the first is the default.
    """

    declared: ClassVar[list["Query[Any]"]] = []

    def __init__(
        self,
        statement: Statement,
        row: type[RowT] = dict,  # type: ignore[assignment]
        *,
        optional: Iterable[ColumnElement[bool]] = (),
        orders: Mapping[str, Order] | None = None,
    ) -> None:
        caller = sys._getframe(1)
        self.declared_at = f"{caller.f_globals['__name__']}:{caller.f_lineno}"
        self.row = row
        self.statement: Any = _with_arrays(statement)
        self._optional = [_with_arrays(condition) for condition in optional]
        if self._optional and not hasattr(statement, "where"):
            raise TypeError(f"optional needs a statement that has a WHERE: {statement}")
        self._parameters = [_parameters(condition) for condition in self._optional]
        self._orders = dict(orders or {})
        if self._orders and not hasattr(statement, "order_by"):
            raise TypeError(f"orders needs a SELECT: {statement}")
        self._default_order = next(iter(self._orders), None)
        self.is_fixed = not (self._optional or self._orders)
        self._may_be_none = frozenset[str]().union(*self._parameters)
        self._forms: dict[tuple[str | None, tuple[int, ...]], Form[RowT]] = {}
        self._counts: dict[tuple[int, ...], Form[RowT]] = {}
        if isinstance(statement, Select):
            Query.declared.append(self)  # per copy: the same in all

    @cached_property
    def fixed(self) -> "Form[RowT]":
        """The form without any optional part, in the default order."""
        return self._form(self._default_order, ())

    def form(self, values: dict[str, Any]) -> "Form[RowT]":
        """The form for these values. Removes values that it does not use. Raises TypeError."""
        if self.is_fixed:
            return self.fixed
        order = values.pop("order", None) or self._default_order
        parts = self._parts(values)
        try:
            return self._forms[order, parts]
        except KeyError:
            return self._form(order, parts)

    def count(self, values: dict[str, Any]) -> "Form[RowT]":
        """How many rows there are for these values, whatever the limit, offset and order."""
        if isinstance(self.statement, UpdateBase):
            raise TypeError(f"count needs a SELECT: {self.statement}")
        parts = self._parts(values)
        if parts not in self._counts:
            rows = self._with(parts).limit(None).offset(None).order_by(None).subquery()
            self._counts[parts] = Form.compiled(select(func.count().label("n")).select_from(rows))
        count = self._counts[parts]
        values.pop("order", None)
        for name in values.keys() & self._form(self._default_order, parts).names - count.names:
            del values[name]
        return count

    def forms(self) -> Iterator[tuple[str, "Form[RowT]"]]:
        """Each optional part alone, all together, none, and each order: for tests of plans."""
        last = tuple(range(len(self._optional)))
        for parts in sorted({(), last, *((part,) for part in last)}):
            names = sorted(frozenset[str]().union(*(self._parameters[part] for part in parts)))
            for order in self._orders or [None]:
                said = [f"with {', '.join(names)}"] if names else []
                said += [f"in order {order!r}"] if order else []
                yield " ".join(said), self._form(order, parts)

    def used(self) -> Iterator["Form[Any]"]:
        yield from (*self._forms.values(), *self._counts.values())

    def _parts(self, values: dict[str, Any]) -> tuple[int, ...]:
        for name in self._may_be_none & values.keys():
            if values[name] is None:
                del values[name]
        given = values.keys()
        return tuple(n for n, names in enumerate(self._parameters) if names <= given)

    def _with(self, parts: tuple[int, ...]) -> Any:
        chosen = [self._optional[part] for part in parts]
        return self.statement.where(*chosen) if chosen else self.statement

    def _form(self, order: str | None, parts: tuple[int, ...]) -> "Form[RowT]":
        if (order, parts) not in self._forms:
            statement = self._with(parts)
            if order is not None:
                if order not in self._orders:
                    raise TypeError(f"order must be one of {sorted(self._orders)}, got {order!r}")
                columns = self._orders[order]
                columns = columns if isinstance(columns, Sequence) else [columns]
                statement = statement.order_by(None).order_by(*columns)
            self._forms[order, parts] = Form.compiled(statement, self.row)
        return self._forms[order, parts]


class Form[RowT](NamedTuple):
    statement: Any
    sql: str
    positions: tuple[str, ...]  # the names of $1, $2 …
    names: frozenset[str]
    required: frozenset[str]
    defaults: Mapping[str, Any]
    rows_of: Callable[[Sequence[Any]], list[RowT]]  # takes records of the driver
    runs_on_driver: bool  # in a transaction. A ReadSession runs each form there

    @classmethod
    def compiled(cls, statement: Statement, row: type[RowT] = dict) -> "Form[RowT]":  # type: ignore[assignment]
        columns = [column.name for column in getattr(statement, "selected_columns", ())]
        if len(set(columns)) < len(columns):
            raise TypeError("two columns have one name: give one of them another with .label()")
        compiled: Any = statement.compile(dialect=_DIALECT)
        if compiled.post_compile_params or compiled.literal_execute_params:
            raise TypeError(f"{NOT_FIXED}: {compiled}")
        positions = tuple(compiled.positiontup or ())
        names = frozenset(positions)
        made = _made_in_python(statement, compiled)
        required = frozenset(name for name in names - made if compiled.binds[name].required)
        defaults = {name: compiled.params[name] for name in names - required - made}
        rows_of = _rows_of(row, [column.keyname for column in compiled._result_columns])
        return cls(
            statement,
            str(compiled),
            positions,
            names,
            required,
            defaults,
            rows_of,
            runs_on_driver=not made and _is_plain(compiled),
        )

    def named(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Raises TypeError if one is missing or not known."""
        if not self.required <= values.keys() <= self.names:
            raise TypeError(f"takes {sorted(self.required)}, got {sorted(values)}: {self.sql}")
        return {**self.defaults, **values} if self.defaults else values

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """Values go to the driver unchanged: UUID, datetime, Decimal, list, dict."""
        if values.keys() != self.names:
            values = self.named(values)
        return [values[name] for name in self.positions]


def _made_in_python(statement: Statement, compiled: Any) -> set[str]:
    """Columns of an INSERT or UPDATE whose value SQLAlchemy makes if it is not given."""
    columns = [*compiled.insert_prefetch, *compiled.update_prefetch]
    if isinstance(statement, Insert):
        columns += [column for column in statement.table.columns if column.default is not None]
    return {column.key for column in columns}


def _is_plain(compiled: Any) -> bool:
    """False if SQLAlchemy changes a value in Python, for example one of JSON."""
    given = (_kind(compiled.binds[name].type) for name in compiled.positiontup or ())
    found = (_kind(column.type) for column in compiled._result_columns)
    return not (
        any(kind.bind_processor(_DIALECT) for kind in given)
        or any(kind.result_processor(_DIALECT, OID_OF_NUMERIC) for kind in found)
    )


def _kind(declared: Any) -> Any:
    # SQLAlchemy copies an array, even if it does nothing with the items.
    kind = declared.item_type if isinstance(declared, ARRAY) else declared
    return kind.dialect_impl(_DIALECT)


def _rows_of[RowT](row: type[RowT], columns: list[str]) -> Callable[[Sequence[Any]], list[RowT]]:
    rows_from = _from_dicts(row)
    fields: dict[str, list[str]] = {}
    for column in columns:
        name, dot, field = column.partition(".")
        if dot:
            fields.setdefault(name, []).append(field)
    if not fields:
        return _from_records(columns, rows_from)
    models = {name: _from_dicts(_model(get_type_hints(row)[name])) for name in fields}

    def with_nested(dicts: list[dict[str, Any]]) -> list[RowT]:
        for values in dicts:
            for name, of_field in fields.items():
                inner = {field: values.pop(f"{name}.{field}") for field in of_field}
                is_there = any(value is not None for value in inner.values())
                values[name] = models[name]([inner])[0] if is_there else None
        return rows_from(dicts)

    return _from_records(columns, with_nested)


def _from_records[RowT](
    columns: list[str], rows_from: Callable[[list[dict[str, Any]]], list[RowT]]
) -> Callable[[Sequence[Any]], list[RowT]]:
    """Compiled with eval, as namedtuple is. dict(record.items()) takes three times as long."""
    fields = ", ".join(f"{column!r}: record[{n}]" for n, column in enumerate(columns))
    source = "lambda records: rows_from([{" + fields + "} for record in records])"
    made: Callable[[Sequence[Any]], list[RowT]] = eval(source, {"rows_from": rows_from})  # noqa: S307  # columns only
    return made


def _from_dicts[RowT](row: type[RowT]) -> Callable[[list[dict[str, Any]]], list[RowT]]:
    """All rows in one call of the validator, which takes half the time of a call for each row."""
    if isinstance(row, type) and issubclass(row, BaseModel):
        # By name, because a column has the name of a field. Clients may see an alias.
        return partial(TypeAdapter(list[row]).validator.validate_python, by_name=True)  # type: ignore[valid-type]
    return lambda dicts: [row(**values) for values in dicts]


def _model(hint: Any) -> Any:
    """The model `Maker`, of `Maker` and of `Maker | None`."""
    if get_origin(hint) in {UnionType, Union}:
        [hint] = [part for part in get_args(hint) if part is not NoneType]
    return hint


def _parameters(condition: ColumnElement[bool]) -> frozenset[str]:
    found = frozenset(
        element.key
        for element in visitors.iterate(condition)
        if isinstance(element, BindParameter) and element.required
    )
    if not found:
        raise TypeError(f"an optional condition needs a bindparam(…): {condition}")
    return found


def _with_arrays[Element: visitors.ExternallyTraversible](element: Element) -> Element:
    """IN over a list has no fixed SQL, = ANY over an array has."""
    return cast("Element", visitors.replacement_traverse(element, {}, _as_array))


def _as_array(element: Any, **_: Any) -> Any:
    is_in = isinstance(element, BinaryExpression) and element.operator in _OVER_ARRAY
    if not is_in or not isinstance(element.right, BindParameter) or isinstance(element.left, Tuple):
        return None
    given = element.right
    kind = ARRAY(element.left.type)
    array = (
        bindparam(given.key, type_=kind)
        if given.required
        else bindparam(None, given.value, type_=kind)
    )
    return _OVER_ARRAY[element.operator](element.left, array)


_OVER_ARRAY: dict[Any, Callable[[Any, Any], Any]] = {
    operators.in_op: lambda column, array: column == any_(array),
    operators.not_in_op: lambda column, array: column != all_(array),
}
