"""Write the message to standard error and exit with the code."""

import json
import sys

parameters = json.load(sys.stdin)
print(parameters["message"], file=sys.stderr)
sys.exit(parameters["exit_code"])
