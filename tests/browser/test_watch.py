"""What goes wrong in a window is noticed: otherwise no other test here says anything."""

import pytest

BAD = {
    "an inline script": "document.body.append(Object.assign(document.createElement('script'), {text: '1'}))",
    "a style attribute": "document.body.setAttribute('style', 'color: red')",
    "what is missing": "fetch('/static/nowhere.js')",
    "another host": "document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.2:9/x'}))",
    "an error": "setTimeout(() => { throw new Error('boo') })",
    "a message": "console.error('boo')",
}


@pytest.mark.parametrize("what", BAD)
def test_it_is_noticed(come, what):
    person = come("root")
    page = person.open("/admin/auth/group/")

    page.evaluate(BAD[what])
    page.wait_for_timeout(300)

    assert person.wrong
    person.wrong.clear()
