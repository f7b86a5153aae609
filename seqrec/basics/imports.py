"""Imports that a command is spared."""


def leave_out_text_metrics() -> None:
    """Keep torchmetrics, which Lightning imports, from loading the models of transformers for its metrics of texts.

    Nothing here uses those metrics, and the models take as long to import as torch. It must be called before Lightning
    is imported.
    """
    try:
        from lightning_utilities.core.imports import RequirementCache
    except ImportError:  # there is no Lightning, as where exports are served
        return

    check = getattr(RequirementCache, "_check_available", None)
    if check is None:  # a version that looks otherwise: everything works, seconds later
        return
    if check.__module__ == __name__:  # done by an earlier command of this process
        return

    def check_others(requirement: RequirementCache) -> None:
        if (requirement.requirement or "").startswith("transformers"):
            requirement.available, requirement.message = False, "not looked for"
        check(requirement)

    RequirementCache._check_available = check_others  # type: ignore[assignment,method-assign]
