"""What a shop could run instead of GRU4Rec, each made from training sessions alone."""

from collections.abc import Callable

from models.dataset import Sessions
from models.evaluation import Ranker
from models.item_knn import ItemKNN
from models.item_rules import AssociationRules, Markov, SequentialRules
from models.popularity import Popularity, RecentPopularity, SessionPopularity
from models.session_knn import S_KNN, V_SKNN, VMIS_KNN, SessionKNN

RIVALS: dict[str, Callable[[Sessions], Ranker]] = {
    "popularity": Popularity,
    "recent-popularity": RecentPopularity,
    "session-popularity": SessionPopularity,
    "markov": Markov,
    "association-rules": AssociationRules,
    "sequential-rules": SequentialRules,
    "item-knn": ItemKNN,
    "s-knn": lambda train: SessionKNN(train, S_KNN),
    "v-sknn": lambda train: SessionKNN(train, V_SKNN),
    "vmis-knn": lambda train: SessionKNN(train, VMIS_KNN),
}

# What a candidate is compared with before it serves; the others are variants of these.
GATE_RIVALS = (
    "popularity", "item-knn", "v-sknn", "vmis-knn", "sequential-rules", "markov",
)  # fmt: skip
