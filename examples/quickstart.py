"""Train two models, register both, and put the second one live."""

from pathlib import Path
from tempfile import TemporaryDirectory

import skops.io
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

import rollforward as rf

x_train, x_test, y_train, y_test = train_test_split(*load_breast_cancer(return_X_y=True), random_state=0)

for trees in (5, 100):
    model = RandomForestClassifier(trees, random_state=0).fit(x_train, y_train)
    with rf.start_run("tumours", name=f"forest-{trees}") as run, TemporaryDirectory() as folder:
        run.log_params({"trees": trees})
        run.log_metric("accuracy", model.score(x_test, y_test))
        skops.io.dump(model, Path(folder) / "model.skops")
        run.log_artifacts(folder, "model")
    version = rf.register_model("tumour-detector", run, artifact="model")
    rf.move_alias("tumour-detector@champion", version, reason=f"{trees} trees")
    print(f"tumour-detector v{version.version} is {version.digest[:19]}... and live")
