-- tasks_enter <name> <offers>
local function verb()
  local name = ARGV[5]
  open({ 'name:' .. name })
  begin_queues()
  local older = named(name)
  local count = T.sessions + (older and 0 or 1)
  if count > C.sessions then
    return { 'limit', 'sessions', count }
  end
  local n = number()
  if older then
    forget_session(older)
  end
  local kind = enter_kind(ARGV[6])
  session_note('entered', name, '"incarnation":' .. int(n))
  local session = {
    n = n, kind = kind, process = CALLER, name = name, version = 0, blocked = 0, resumable = 0, refused = 0,
    places = 0, cursor = 0, look = 0, held = {}, waits = {}, known = {}, slots = {},
  }
  seen[n] = session
  sessions_of[P] = sessions_of[P] or {}
  sessions_of[P][n], session_count = session, session_count + 1
  save_session(session)
  write('name:' .. name, int(n))
  T.sessions = T.sessions + 1
  call('ZADD', P .. 'sessions', 0, name)
  call('SADD', P .. 'ps:' .. CALLER, int(n))
  show_life()
  -- Its own queue is there for the newer one, and for what the older one had of it, as far as that can do it.
  if older then
    part(older, n)
  end
  add_chore('sift ' .. name)
  return { 'ok', n }
end
