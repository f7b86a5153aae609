"""The names that the published code imports: `from recformer import RecformerModel`, in the folder Recformer/.

Elsewhere in the project the same is `from Recformer.recformer import RecformerModel`.
"""

import sys
from pathlib import Path

if (root := str(Path(__file__).resolve().parents[2])) not in sys.path:
    sys.path.insert(0, root)

from Recformer.published import RecformerConfig, RecformerForSeqRec, RecformerModel, RecformerTokenizer

__all__ = ["RecformerConfig", "RecformerForSeqRec", "RecformerModel", "RecformerTokenizer"]
