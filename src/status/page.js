(() => {
  const box = document.getElementById('all'), past = {}
  let end = 0, of = 1
  const short = n => n < 10 ? n.toFixed(1) : n < 1e4 ? n.toFixed(0) : n < 1e6 ? (n / 1e3).toFixed(1) + ' k' : (n / 1e6).toFixed(1) + ' M'
  const tick = () => {
    const left = Math.max(0, end - performance.now()), p = box.querySelector('.left b')
    if (!p) return
    p.textContent = (left / 1e3).toFixed(1)
    box.querySelector('.hero rect+rect').setAttribute('width', 100 * left / of)
  }
  const draw = () => {
    const now = performance.now(), left = box.querySelector('.left')
    if (left) end = now + +left.dataset.left, of = +left.dataset.of || 1
    tick()
    for (const f of box.querySelectorAll('figure')) {
      const unit = f.querySelector('span'), seen = past[unit.textContent] ??= []
      const last = seen.at(-1), n = +f.dataset.n
      if (last && n < last.n) seen.length = 0
      const rate = last && n >= last.n ? (n - last.n) / Math.max(.05, (now - last.at) / 1e3) : 0
      if (!last || now - last.at > 200) seen.push({ at: now, n, rate: last ? rate : 0 })
      if (seen.length > 60) seen.shift()
      const top = Math.max(1, ...seen.map(s => s.rate))
      f.querySelector('polyline').setAttribute('points',
        seen.map((s, i) => (120 - 2 * (seen.length - 1 - i)) + ',' + (31 - 30 * s.rate / top).toFixed(1)).join(' '))
      f.querySelector('b').textContent = short(seen.at(-1).rate)
      unit.append(' a second')
    }
    for (const d of box.querySelectorAll('td')) if (/^\d{5,}$/.test(d.textContent)) d.textContent = (+d.textContent).toLocaleString('en')
    document.title = box.querySelector('h2').textContent + ' · allout'
  }
  const open = () => {
    const events = new EventSource(location.pathname)
    events.onmessage = e => { box.innerHTML = e.data; document.body.className = ''; draw() }
    events.onerror = () => {
      document.body.className = 'away'
      if (events.readyState === 2) setTimeout(open, 2000)
    }
  }
  setInterval(tick, 100)
  draw()
  open()
})()
