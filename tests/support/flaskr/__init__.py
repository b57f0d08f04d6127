"""Flask's tutorial application, a blog: register, log in, write, change and delete posts."""

import os

from flask import Flask


def create_app():
    from tests.support.flaskr import auth, blog, db

    app = Flask(__name__)
    app.config.from_mapping(SECRET_KEY="dev", DATABASE=os.environ["FLASKR_DATABASE"])
    db.init_app(app)
    app.register_blueprint(auth.bp)
    app.register_blueprint(blog.bp)
    app.add_url_rule("/", endpoint="index")
    with app.app_context():
        db.init_db()

    @app.route("/hello")
    def hello():
        return "Hello, World!"

    return app
