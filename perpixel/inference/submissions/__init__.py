"""What test servers take: `write_submission` packs it, `validate_submission` checks anybody's.

See docs/submissions.md.
"""

from perpixel.inference.submissions.check import SubmissionCheck, validate_submission
from perpixel.inference.submissions.servers import SUBMISSIONS, MaskServer, MembraneStack
from perpixel.inference.submissions.write import Submission, write_submission

__all__ = [
    "SUBMISSIONS",
    "MaskServer",
    "MembraneStack",
    "Submission",
    "SubmissionCheck",
    "validate_submission",
    "write_submission",
]
