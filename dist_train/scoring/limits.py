"""What a command line may ask of intervals. It imports nothing: a mistake is told at once."""


def check(draws: int, level: float) -> None:
    """ValueError for what a command line cannot ask for."""
    if draws < 0 or 0 < draws < 100:
        raise ValueError(f"--draws {draws}: give 100 or more, or 0 for no intervals")
    if not 0 < level < 1:
        raise ValueError(f"--level {level:g}: lies between 0 and 1; give e.g. 0.95")
