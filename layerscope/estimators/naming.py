"""Names of estimators: registered ones, presets, and the import paths of anyone's own.

A measure and an import path may carry keyword arguments, which are Python literals and are never
run: ``coding-rate(eps_sq=0.1)``, ``sklearn.neighbors.KNeighborsClassifier(n_neighbors=3)``.
"""

from __future__ import annotations

import ast
import inspect
from typing import Any
from urllib.parse import quote

from layerscope.errors import SettingsError
from layerscope.estimators import estimators
from layerscope.estimators.imported import Imported, import_class
from layerscope.estimators.presets import PREFIX, PRESETS
from layerscope.types import Estimator

DEFAULT = ("logistic", "ridge")
"""What is fitted where nobody names estimators: one for classes, one for latents and labels."""
LONGEST = 120
"""Characters of a name once it is quoted, as it is in the names of files in the results."""
PAIRWISE = "cka"
"""What is looked for among estimators and is a command."""
_HINT = "Write package.module.Class, or package.module.Class(number=3, word='text')."


def split_names(text: str) -> list[str]:
    """Return the names of a list with commas, of which those inside brackets or quotes are none.

    Raises:
        SettingsError: A bracket or a quote is not closed, or a name is empty.

    Examples:
        >>> split_names("logistic, a.B(c=1, d=(2, 3))")
        ['logistic', 'a.B(c=1, d=(2, 3))']
    """
    names, depth, opened = [""], 0, ""
    for letter in text:
        if opened:
            opened = "" if letter == opened else opened
        elif letter in "'\"":
            opened = letter
        else:
            depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth and not opened:
            names.append("")
        else:
            names[-1] += letter
    stripped = [name.strip() for name in names]
    if depth or opened or not all(stripped):
        raise SettingsError(
            f"The list of estimators {text!r} has an open bracket or quote, or an empty name.",
            hint="Give names with commas between them, such as logistic,lda.",
        )
    return stripped


def make(name: str, seed: int) -> Estimator:
    """Return the estimator of a name.

    Args:
        name: Of a registered estimator, a measure with settings in brackets, ``sgd:`` and a
            preset, or an import path.
        seed: Of whatever the estimator draws.

    Raises:
        SettingsError: There is no such preset or class, or it cannot be made so.
        UnknownNameError: No estimator has that name.

    Examples:
        >>> make("sklearn.svm.LinearSVC(C = 2)", 0).name
        'sklearn.svm.LinearSVC(C=2)'
        >>> make("coding-rate(eps_sq = 0.1)", 0).name
        'coding-rate(eps_sq=0.1)'
    """
    if name in estimators:
        return _make_registered(name, seed)
    head, bracket, arguments = name.partition("(")
    if bracket and head.strip() in estimators:
        return _make_with_settings(head.strip(), f"({arguments}", seed)
    if name == PAIRWISE:
        raise SettingsError(
            f"{name!r} compares layers with each other and is no score of one.",
            hint="Use layerscope cka features/.",
        )
    if name.startswith(PREFIX):
        raise SettingsError(
            f"There is no preset {name!r}.",
            hint=f"The presets are {', '.join(PREFIX + known for known in PRESETS)}.",
        )
    if "." in name or "(" in name:
        return _make_imported(name, seed)
    return _make_registered(name, seed)


def require_estimator(estimator: object) -> Estimator:
    """Return an estimator that is one.

    Raises:
        SettingsError: It does not derive from :class:`layerscope.types.Estimator`, or has no name.
    """
    if isinstance(estimator, Estimator) and isinstance(getattr(estimator, "name", None), str):
        return estimator
    what = "has no name" if isinstance(estimator, Estimator) else "does not derive from Estimator"
    raise SettingsError(
        f"The estimator class {type(estimator).__name__!r} {what}.",
        hint="Derive it from layerscope.types.Estimator, or from Measure if it fits nothing, and "
        "give it name, handles and score.",
    )


def _make_registered(name: str, seed: int, /, **settings: Any) -> Estimator:
    maker: Any = estimators[name]
    if missing := sorted(getattr(maker, "__abstractmethods__", ())):
        raise SettingsError(
            f"The estimator {name!r} has no {' and no '.join(missing)}.",
            hint="Write it: layerscope.types.Estimator says what each method returns.",
        )
    return require_estimator(maker(seed, **settings))


def _make_with_settings(head: str, arguments: str, seed: int) -> Estimator:
    """Return a registered estimator with settings of the user's own."""
    _, given = _parse_call(f"estimator{arguments}")
    maker = estimators[head]
    known = [name for name in inspect.signature(maker).parameters if name not in ("seed", "name")]
    wrong = [name for name in given if name not in known]
    if wrong or "name" not in inspect.signature(maker).parameters:
        raise SettingsError(
            f"{head!r} has no setting {', '.join(map(repr, wrong or given))}.",
            hint=f"Its settings are {', '.join(known)}." if known else "It has none.",
        )
    try:
        return _make_registered(head, seed, name=_name_of_call(head, given), **given)
    except TypeError as error:
        raise SettingsError(
            f"The settings of {head + arguments!r} are of the wrong kind: {error}.",
            hint=f"See {head} on the page of measures.",
        ) from None


def _make_imported(text: str, seed: int) -> Imported:
    path, arguments = _parse_call(text)
    return Imported(_name_of_call(path, arguments), import_class(path), arguments, seed)


def _name_of_call(path: str, arguments: dict[str, Any]) -> str:
    written = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    name = f"{path}({written})" if arguments else path
    if len(quote(name)) > LONGEST:
        raise SettingsError(
            f"The estimator {name[:30]!r}… has a name of {len(quote(name))} characters, quoted.",
            hint=f"Give it {LONGEST} at most: put the arguments into a class of your own.",
        )
    return name


def _parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """Return the path and the arguments of what looks like a call and is none."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        path = ast.unparse(call.func)
        keywords = {str(it.arg): ast.literal_eval(it.value) for it in call.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise SettingsError(
            f"The estimator {text!r} cannot be read; its arguments have to be literals.",
            hint=_HINT,
        ) from None
    plain = all(part.isidentifier() for part in path.split("."))
    if not plain or call.args or "None" in keywords:
        raise SettingsError(
            f"The estimator {text!r} is no import path with keyword arguments.", hint=_HINT
        )
    return path, keywords
