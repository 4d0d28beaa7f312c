"""Scores of the clips of one class, weights of clips in many draws -> average precision and area of each draw.

Also the influence of each clip: how far a figure moves when the clip weighs a little more (Efron 1982, the
infinitesimal jackknife). The squares of influences sum to the figure's variance, without a single draw.
"""

import numpy as np
from numpy.typing import NDArray

from dist_train.scores import Floats, Marks


class Ranking:
    """Clips of one class in falling order of their scores; equal scores are taken together."""

    def __init__(self, score_N: Floats, truth_N: Marks) -> None:
        self.order = np.argsort(-score_N, kind="stable")
        falling = score_N[self.order]
        self.last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)  # of each run of equal scores
        self.truth = truth_N[self.order]

    def average_precision(self, weight_DN: Floats) -> Floats:
        """(D,) of each row of weights of clips, which count a clip so often; NaN without a positive.

        Where several labels of each clip are ranked together, a clip's weight is that of each.
        """
        hits, alarms = self._points(weight_DN)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(hits > 0, hits / (hits + alarms), 0.0)
            return np.asarray((np.diff(hits, prepend=0.0) * precision).sum(1) / hits[:, -1])

    def area(self, weight_DN: Floats) -> Floats:
        """(D,) area under the receiver operating characteristic; NaN without a positive or a negative."""
        hits, alarms = self._points(weight_DN)
        heights = hits + np.pad(hits, ((0, 0), (1, 0)))[:, :-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            sums = (np.diff(alarms, prepend=0.0) * heights).sum(1)
            return np.asarray(sums / (2 * hits[:, -1] * alarms[:, -1]))

    def precision_influence(self) -> Floats:
        """(N,) derivative of average precision by each clip's weight, where all weigh 1; there is a positive.

        AP = 1/P sum over positives i of T_i / N_i, T_i and N_i being the positives and clips that score at least as i.
        """
        hits, alarms = (row[0] for row in self._points(np.ones((1, len(self.order)))))
        taken = hits + alarms
        own = np.diff(hits, prepend=0.0)
        place = np.repeat(np.arange(len(self.last)), np.diff(self.last, prepend=-1))
        below_hit = np.cumsum((own / taken)[::-1])[::-1]  # over positives that score at most as much
        below_all = np.cumsum((own * hits / taken**2)[::-1])[::-1]
        value = (own * hits / taken).sum() / hits[-1]
        moved = np.where(self.truth, (hits / taken)[place] - value + below_hit[place], 0.0) - below_all[place]
        return self._back(moved / hits[-1])

    def area_influence(self) -> Floats:
        """(N,) derivative of the area by each clip's weight, where all weigh 1; there are positives and negatives."""
        hits, alarms = (row[0] for row in self._points(np.ones((1, len(self.order)))))
        place = np.repeat(np.arange(len(self.last)), np.diff(self.last, prepend=-1))
        above_alarm = alarms - np.diff(alarms, prepend=0.0) / 2  # negatives above, equal ones by half
        above_hit = hits - np.diff(hits, prepend=0.0) / 2
        share = np.where(self.truth, 1 - above_alarm[place] / alarms[-1], above_hit[place] / hits[-1])
        value = share[self.truth].mean()
        return self._back((share - value) / np.where(self.truth, hits[-1], alarms[-1]))

    def _points(self, weight_DN: Floats) -> tuple[Floats, Floats]:
        """(D, levels) hits and false alarms when everything of a score at least as high is taken."""
        sorted_DN = weight_DN[:, self.order * weight_DN.shape[1] // len(self.order)]
        hits = np.cumsum(sorted_DN * self.truth, axis=1)[:, self.last]
        return hits, np.cumsum(sorted_DN, axis=1)[:, self.last] - hits

    def _back(self, values: Floats) -> Floats:
        out: NDArray[np.float64] = np.empty(len(values))
        out[self.order] = values
        return out
